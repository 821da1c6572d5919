"""Completion of commands and flags for a shell: `dcai-ray completion bash`.

The script is static, so that no Python starts at each press of the tab key.
"""

from collections.abc import Iterable, Mapping

_BASH = """_dcai_ray() {{
  local word=${{COMP_WORDS[COMP_CWORD]}}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return
  fi
  local flags=""
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _dcai_ray dcai-ray
"""


def script(shell: str, flags: Mapping[str, Iterable[str]]) -> str:
    """The script for a shell to read.

    Args:
        shell: bash or zsh.
        flags: the flags of each command.
    """
    cases = "\n".join(f'    {name}) flags="{" ".join(each)}" ;;' for name, each in flags.items())
    text = _BASH.format(commands=" ".join(flags), cases=cases)
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if shell == "zsh" else text

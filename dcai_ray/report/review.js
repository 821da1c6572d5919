// The review: marks are sent to the server as they are made, in their order, until it has them.
const unsent = [];
let sending = false;

async function send() {
  if (sending || !unsent.length) return;
  sending = true;
  const records = unsent.slice();
  let answer = null;
  try {
    answer = await fetch("decisions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ by: $("by").value, records }),
    });
  } catch {
    // The server is gone; what it did not answer stays here.
  }
  sending = false;
  if (answer && answer.ok) {
    unsent.splice(0, records.length);
    $("progress").textContent = (await answer.json()).progress;
    $("unsaved").hidden = true;
    send();
    return;
  }
  const why = answer ? await answer.text() : "the server does not answer";
  $("unsaved").hidden = false;
  $("unsaved").textContent = `${number(unsent.length)} decisions are not saved: ${why}. ` +
    "They are sent again while this page is open; or download them here, and give the file to dcai-ray decide.";
  setTimeout(send, 2000);
}

record = (records) => {
  unsent.push(...records);
  send();
};
isSaved = () => !unsent.length;
$("by").value = data.by;
$("legend").textContent = data.classes.slice(0, 9).map((name, k) => `${k + 1} ${name}`).join(" · ") +
  (data.classes.length > 9 ? " · …" : "") + " (a class's key relabels, or keeps if it is the given one; Space: next)";

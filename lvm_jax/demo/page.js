// The server draws the strip; this sends it what is clicked, dropped or chosen, all files in one message.
const LIMIT = MAX_REQUEST_FILES;

async function send(list) {
  const files = [];
  let total = 0;
  for (const file of list) {
    total += file.size;
    if (total > LIMIT) return trigger("upload", { files: [], refused: total });
    const url = await new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.onerror = () => done("");
      reader.readAsDataURL(file);
    });
    files.push({ name: file.name, content: url.slice(url.indexOf(",") + 1) });
  }
  if (files.length) trigger("upload", { files });
}

let focused = null; // what is clicked is drawn anew: the keyboard stays where it was

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  focused = button.dataset.focus;
  trigger("click", { do: button.dataset.do, index: Number(button.dataset.index ?? -1) });
});

element.addEventListener("change", (event) => {
  if (event.target.type === "file") {
    send([...event.target.files]);
    event.target.value = "";
  }
});

for (const name of ["dragenter", "dragover"]) {
  element.addEventListener(name, (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  element.addEventListener(name, () => element.classList.remove("over"));
}
element.addEventListener("drop", (event) => {
  event.preventDefault();
  send([...event.dataTransfer.files]);
});

watch("value", () => {
  const strip = element.querySelector(".strip");
  if (strip) strip.scrollLeft = strip.scrollWidth;
  if (focused) (element.querySelector(`[data-focus="${focused}"]:not(:disabled)`) ?? element.querySelector(".drop input"))?.focus();
  focused = null;
});

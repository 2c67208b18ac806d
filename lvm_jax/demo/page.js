// The server draws the elements; this sends it what is clicked, typed, dropped, chosen or painted, all files in one message.
const LIMIT = MAX_REQUEST_FILES;

async function send(list, place, index) {
  const files = [];
  let total = 0;
  const event = { place, index: Number(index ?? -1), files };
  for (const file of list) {
    total += file.size;
    if (total > LIMIT) return trigger("upload", { ...event, files: [], refused: total });
    const url = await new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.onerror = () => done("");
      reader.readAsDataURL(file);
    });
    files.push({ name: file.name, content: url.slice(url.indexOf(",") + 1) });
  }
  if (files.length) trigger("upload", event);
}

let focused = null; // what is clicked is drawn anew: the keyboard stays where it was

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  if (button.dataset.copies) return copy(button);
  focused = button.dataset.focus;
  trigger("click", { do: button.dataset.do, index: Number(button.dataset.index ?? -1) });
});

function copy(button) {
  const text = element.querySelector(button.dataset.copies);
  getSelection().selectAllChildren(text); // also shows what was copied, and serves where there is no clipboard
  navigator.clipboard?.writeText(text.textContent);
  button.textContent = "Copied";
}

element.addEventListener("change", (event) => {
  const field = event.target;
  if (field.type === "file") {
    send([...field.files], field.dataset.place, field.dataset.index);
    field.value = "";
  } else if (field.dataset.do) {
    trigger("input", { do: field.dataset.do, index: Number(field.dataset.index ?? -1), value: field.value });
  }
});

// A file may fall anywhere: beside all drops it goes to the first.
const dropAt = (event) => event.target.closest(".drop") ?? element.querySelector(".drop");

for (const name of ["dragenter", "dragover"]) {
  element.addEventListener(name, (event) => {
    event.preventDefault();
    for (const drop of element.querySelectorAll(".over")) drop.classList.remove("over");
    dropAt(event)?.classList.add("over");
  });
}
element.addEventListener("dragleave", (event) => dropAt(event)?.classList.remove("over"));
element.addEventListener("drop", (event) => {
  event.preventDefault();
  const input = dropAt(event)?.querySelector("input");
  dropAt(event)?.classList.remove("over");
  if (input) send([...event.dataTransfer.files], input.dataset.place, input.dataset.index);
});

// Painting on a picture: canvases with data-tool "brush" or "box".
let stroke = null;

element.addEventListener("pointerdown", (event) => {
  const canvas = event.target.closest("canvas[data-tool]");
  if (!canvas) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  const pen = canvas.getContext("2d");
  pen.strokeStyle = pen.fillStyle = "white";
  pen.lineWidth = canvas.width / 12;
  pen.lineCap = pen.lineJoin = "round";
  stroke = { canvas, pen, from: placeIn(canvas, event), to: placeIn(canvas, event) };
  draw();
});
element.addEventListener("pointermove", (event) => {
  if (!stroke) return;
  const last = stroke.to;
  stroke.to = placeIn(stroke.canvas, event);
  draw(last);
});
element.addEventListener("pointerup", () => {
  if (!stroke) return;
  const { canvas, from, to } = stroke;
  stroke = null;
  const index = Number(canvas.dataset.index);
  if (canvas.dataset.tool === "box") {
    const shares = [0, 1].map((axis) => [from[axis], to[axis]].map((v) => v / canvas.width).sort((a, b) => a - b));
    const value = [shares[0][0], shares[1][0], shares[0][1], shares[1][1]];
    trigger("click", { do: "box", index, value });
  } else {
    const paper = document.createElement("canvas"); // a mask is white on black
    paper.width = paper.height = canvas.width;
    const pen = paper.getContext("2d");
    pen.fillRect(0, 0, paper.width, paper.height);
    pen.drawImage(canvas, 0, 0);
    paper.toBlob((blob) => send([new File([blob], "what you painted")], "painted", index));
  }
});

function placeIn(canvas, event) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const inside = (share) => Math.min(Math.max(share, 0), 1) * canvas.width;
  return [inside((event.clientX - left) / width), inside((event.clientY - top) / height)];
}

function draw(last) {
  const { canvas, pen, from, to } = stroke;
  if (canvas.dataset.tool === "box") {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.fillRect(from[0], from[1], to[0] - from[0], to[1] - from[1]);
  } else {
    pen.beginPath();
    pen.moveTo(...(last ?? from));
    pen.lineTo(...to);
    pen.stroke();
  }
}

watch("value", () => {
  const strip = element.querySelector(".strip");
  if (strip) strip.scrollLeft = strip.scrollWidth;
  if (focused) (element.querySelector(`[data-focus="${focused}"]:not(:disabled)`) ?? element.querySelector(".drop input"))?.focus();
  focused = null;
});

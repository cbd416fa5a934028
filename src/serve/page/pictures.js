// Pictures of a conversation: {blob, name, width, height, url}, and what they are sent as. The server reads JPEG, PNG
// and WebP; whatever else the browser can show is written again as one of them.
import { Problem } from "./words.js";

const MAX_PIXELS = 24e6; // below the server's --max-image-pixels; models read far less

const MAGIC = [
  [0xff, 0xd8, 0xff], // JPEG
  [0x89, 0x50, 0x4e, 0x47], // PNG
];

async function isSentAsItIs(blob) {
  const head = new Uint8Array(await blob.slice(0, 12).arrayBuffer());
  const isWebp = String.fromCharCode(...head.slice(0, 4)) === "RIFF" && String.fromCharCode(...head.slice(8)) === "WEBP";
  return isWebp || MAGIC.some((bytes) => bytes.every((byte, i) => head[i] === byte));
}

export async function openPicture(file, name = file.name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch (error) {
    throw new Problem(`“${name || "This"}” is not a picture that can be read here. JPEG, PNG and WebP work.`, { raw: String(error.message) });
  }
  const picture = { blob: file, name, width: bitmap.width, height: bitmap.height };
  try {
    const shrink = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
    if (shrink < 1 || !(await isSentAsItIs(file))) {
      picture.width = Math.max(1, Math.floor(bitmap.width * shrink));
      picture.height = Math.max(1, Math.floor(bitmap.height * shrink));
      picture.blob = await drawn(bitmap, picture.width, picture.height, "image/png");
    }
  } finally {
    bitmap.close();
  }
  return showable(picture);
}

// Gives a picture out of the history what the page needs to show it.
export function showable(picture) {
  picture.url = URL.createObjectURL(picture.blob);
  picture.sent = new Map(); // "WxH" -> data: URL
  return picture;
}

export function drop(picture) {
  URL.revokeObjectURL(picture.url);
}

async function drawn(bitmap, width, height, type) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
  if (!blob) throw new Problem("The browser has no memory left to scale this picture.");
  return blob;
}

// The size at which a picture costs at most `bound` tokens, from what it costs as it is: `full` is {tokens, read_at}.
export function sizeFor(picture, full, bound) {
  if (!full || bound >= full.tokens) return null;
  const side = Math.sqrt((full.read_at[0] * full.read_at[1]) / full.tokens); // pixels of a token's side
  const shape = full.read_at[0] / full.read_at[1];
  const columns = Math.min(bound, Math.max(1, Math.floor(Math.sqrt(bound * shape) + 1e-9)));
  const rows = Math.max(1, Math.min(Math.floor(bound / columns), Math.round(columns / shape)));
  return [Math.max(1, Math.round(columns * side)), Math.max(1, Math.round(rows * side))];
}

// A data: URL of the picture, at `size` where one is given.
export async function dataUrl(picture, size) {
  const key = size ? size.join("x") : "";
  let url = picture.sent.get(key);
  if (!url) {
    let blob = picture.blob;
    if (size) {
      const bitmap = await createImageBitmap(picture.blob);
      blob = await drawn(bitmap, ...size, "image/png");
      bitmap.close();
    }
    url = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.replace(/^data:[^;,]*/, "data:image/png"));
      reader.onerror = () => reject(new Problem("The picture cannot be read again. Choose it once more."));
      reader.readAsDataURL(blob);
    });
    if (picture.sent.size > 2) picture.sent.clear(); // sizes that the slider passed
    picture.sent.set(key, url);
  }
  return url;
}

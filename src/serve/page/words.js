// Numbers and errors as people read them.

export function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; ++unit) count /= 1024;
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

export function seconds(value) {
  if (value < 0.1) return "< 0.1 s";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value)} s`;
  return `${Math.round(value / 60)} min`;
}

export function count(value) {
  return Math.round(value).toLocaleString("en");
}

export function plural(value, word) {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

// An error with words for the page, and what the server said.
export class Problem extends Error {
  constructor(text, { raw = "", status = 0, code = "" } = {}) {
    super(text);
    this.raw = raw;
    this.status = status;
    this.code = code;
  }
}

const BY_CODE = {
  context_length_exceeded:
    "This does not fit: pictures and conversation take more tokens than the model can hold. " +
    "Lower the tokens a picture may cost, or begin a new conversation.",
  image_too_large: "The picture has more pixels than this server reads.",
  invalid_image: "The server cannot read this picture. It reads JPEG, PNG and WebP; the file may be damaged.",
  too_many_images: "There are too many pictures in this conversation. Begin a new one.",
  no_vision: "This model reads no pictures. Choose another model, or ask without a picture.",
  busy: "The server is busy: too many questions wait already. Try again in a moment.",
  cancelled: "The server ended before the answer was whole.",
  model_not_found: "The server has no model of this name any more. Load the page again.",
};
const BY_STATUS = {
  401: "The server needs a key.",
  403: "The server does not take questions from a page at this address. It names allowed pages with --cors.",
  404: "The server does not know this. Page and server may be of different versions: load the page again.",
  413: "This is too large to send. Use fewer or smaller pictures.",
  421: "The server is not to be reached under this name. It names allowed ones with --allow-host.",
  429: "The server is busy: too many questions wait already. Try again in a moment.",
  500: "Something went wrong in the server.",
  503: "The server is busy or still loads the model. Try again in a moment.",
};

// From the status and the error that a reply, or the last event of a stream, has.
export function problemOf(status, error) {
  const raw = typeof error === "string" ? error : error?.message ?? "";
  const code = error?.code ?? "";
  const known = BY_CODE[code] ?? BY_STATUS[status];
  return new Problem(known ?? "The server refused this question.", { raw, status, code });
}

// What the test of the page needs of the browser: pages that note every request and every complaint of the console,
// files that are pasted and dropped, contrast of what is shown.
import { join } from "node:path";
import { chromium } from "playwright-core";
import { assert } from "./server.mjs";

export const browser = await chromium.launch({
  executablePath: process.env.PINHOLE_CHROMIUM,
  args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
});

// A page in a browser profile of its own. `expected`: complaints that a case provokes.
export async function openPage(url, { expected = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  const requests = [], complaints = [];
  page.on("request", (request) => requests.push(request));
  page.on("console", (message) => {
    const text = message.text();
    if (["error", "warning"].includes(message.type()) && !expected.some((part) => part.test(text))) complaints.push(text);
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.setDefaultTimeout(30_000);
  await page.goto(url + "/");
  return {
    page, context, requests,
    posted: (path) => requests.filter((request) => request.url() === `${url}/${path}` && request.method() === "POST"),
    // Nothing went elsewhere, nothing was complained of.
    async close() {
      assert.deepEqual(complaints, []);
      for (const request of requests)
        assert.match(request.url(), new RegExp(`^(${url.replaceAll(".", "\\.")}/|blob:${url.replaceAll(".", "\\.")}/|data:)`));
      await context.close();
    },
  };
}

export async function shot(page, name, fullPage = false) {
  const folder = process.env.PINHOLE_SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`), fullPage });
}

// As a browser does it with a file from the clipboard, or from another window.
export function give(page, how, bytes, name) {
  return page.evaluate(([how, base64, name]) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type: "image/png" }));
    const options = { bubbles: true, cancelable: true };
    if (how === "paste") {
      document.activeElement.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: data }));
      return;
    }
    for (const type of ["dragenter", "dragover", "drop"])
      document.body.dispatchEvent(new DragEvent(type, { ...options, dataTransfer: data }));
  }, [how, bytes.toString("base64"), name]);
}

// The least contrast (WCAG 2.2, 1.4.3) of all text that is shown, and where.
export function leastContrast(page) {
  return page.evaluate(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = (color) => {
      const [r, g, b] = color.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const color = rgba(getComputedStyle(at).backgroundColor);
        if (color[3] === 255) return color;
      }
      return [255, 255, 255, 255];
    };
    let least = { ratio: 21, text: "" };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      const text = walker.currentNode.data.trim();
      if (!text || element.closest("[hidden], .hidden, .skip, noscript, script, dialog:not([open]), option, :disabled")) continue;
      const a = luminance(rgba(getComputedStyle(element).color)), b = luminance(behind(element));
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < least.ratio) least = { ratio, text };
    }
    return least;
  });
}

// Controls that are shown and smaller than 44 x 44 CSS pixels.
export function smallTargets(page) {
  return page.evaluate(() => [...document.querySelectorAll("button, select, textarea, input, summary")]
    .filter((element) => element.checkVisibility() && !element.hidden && element.offsetParent !== null)
    .map((element) => [element.id || element.textContent, element.getBoundingClientRect()])
    .filter(([, box]) => box.width < 44 || box.height < 44)
    .map(([name, box]) => `${name} ${box.width}x${box.height}`));
}

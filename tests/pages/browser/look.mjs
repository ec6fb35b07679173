// Opens a report in headless Chromium: node look.mjs CHROMIUM REPORT.html SCREENSHOT_FOLDER
// Prints JSON: what is wrong with the HTML, and for each width and colour scheme what the page asked for, logged and
// drew, and what axe-core says.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import axe from "axe-core";
import { FileSystemConfigLoader, HtmlValidate } from "html-validate/node";
import puppeteer from "puppeteer-core";

const [chromium, report, screenshots] = process.argv.slice(2);
const VIEWS = [];
for (const [device, width, height] of [["phone", 390, 844], ["desktop", 1280, 900]])
  for (const scheme of ["light", "dark"]) VIEWS.push({ device, width, height, scheme });

async function look(browser, { device, width, height, scheme }) {
  const page = await browser.newPage();
  const requests = [], logged = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => logged.push(message.text()));
  page.on("pageerror", (error) => logged.push(String(error)));
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(report).href);
  const figures = [];
  for (const image of await page.$$("figure img")) {
    const file = path.join(screenshots, `${device}-${scheme}-${figures.length}.png`);
    await image.screenshot({ path: file });
    const size = await image.evaluate((one) => ({ width: one.clientWidth, natural: one.naturalWidth, alt: one.alt }));
    figures.push({ ...size, file });
  }
  await page.screenshot({ path: path.join(screenshots, `${device}-${scheme}.png`), fullPage: true });
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => axe.run());
  await page.close();
  const found = violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.slice(0, 3).map((n) => n.html) }));
  return { device, scheme, requests, logged, figures, overflow, violations: found };
}

const loader = new FileSystemConfigLoader({ root: true, extends: ["html-validate:standard"] });
const { results } = await new HtmlValidate(loader).validateString(fs.readFileSync(report, "utf8"), report);
const invalid = results.flatMap((one) => one.messages.map(({ line, ruleId, message }) => `${line}: ${ruleId}: ${message}`));
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-gpu"] });
const views = [];
for (const view of VIEWS) views.push(await look(browser, view));
await browser.close();
console.log(JSON.stringify({ invalid, views }));

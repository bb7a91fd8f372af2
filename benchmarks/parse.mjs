// eventsource-parser, driven by parse.py: a JSON line in, one measurement out.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createParser } from "eventsource-parser";

const { version } = JSON.parse(readFileSync(new URL("node_modules/eventsource-parser/package.json", import.meta.url)));
const loaded = new Map();

function load(file, lengths) {
  if (!loaded.has(file)) {
    const stream = readFileSync(file);
    let start = 0;
    loaded.clear();
    loaded.set(file, lengths.map((length) => stream.subarray(start, (start += length))));
  }
  return loaded.get(file);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { file, lengths } = JSON.parse(line);
  if (!file) {
    console.log(JSON.stringify({ version: `${process.version}, eventsource-parser ${version}` }));
    continue;
  }
  const chunks = load(file, lengths);
  const decoder = new TextDecoder();
  let count = 0;
  const parser = createParser({ onEvent: () => { count += 1; } });
  const begin = process.cpuUsage();
  for (const chunk of chunks) parser.feed(decoder.decode(chunk, { stream: true }));
  const { user, system } = process.cpuUsage(begin);
  console.log(JSON.stringify({ seconds: (user + system) / 1e6, count }));
}

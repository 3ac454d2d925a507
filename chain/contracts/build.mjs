// Compiles every contract in this folder to <Name>.json: `npm ci && npm run build`.
// With --check nothing is written, and the exit code says whether the artefacts are up to date.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync, existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const EVM_VERSION = "cancun"; // the newest one that both simulators execute
const OPTIMIZER_RUNS = 200;
const ACCEPTED_WARNINGS = ["5159"]; // selfdestruct is deprecated: a test contract needs it

const folder = dirname(fileURLToPath(import.meta.url));
const checkOnly = process.argv.includes("--check");

function compile(file) {
  const source = readFileSync(join(folder, file), "utf8");
  const output = JSON.parse(
    solc.compile(
      JSON.stringify({
        language: "Solidity",
        sources: { [file]: { content: source } },
        settings: {
          evmVersion: EVM_VERSION,
          optimizer: { enabled: true, runs: OPTIMIZER_RUNS },
          metadata: { bytecodeHash: "none", appendCBOR: false },
          outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
        },
      }),
    ),
  );
  const messages = (output.errors ?? []).filter((one) => !ACCEPTED_WARNINGS.includes(one.errorCode));
  for (const message of messages) console.error(message.formattedMessage);
  if (messages.length > 0) process.exit(1);
  const name = file.replace(/\.sol$/, "");
  const contract = output.contracts[file][name];
  return {
    name,
    source: file,
    sourceSha256: createHash("sha256").update(source).digest("hex"),
    compiler: `solc ${solc.version()}`,
    evmVersion: EVM_VERSION,
    optimizerRuns: OPTIMIZER_RUNS,
    abi: contract.abi,
    bytecode: "0x" + contract.evm.bytecode.object,
    deployedBytecode: "0x" + contract.evm.deployedBytecode.object,
  };
}

let stale = false;
for (const file of readdirSync(folder).filter((entry) => entry.endsWith(".sol")).sort()) {
  const artefact = compile(file);
  const target = join(folder, `${artefact.name}.json`);
  const text = JSON.stringify(artefact, null, 2) + "\n";
  const same = existsSync(target) && readFileSync(target, "utf8") === text;
  if (checkOnly) stale ||= !same;
  else writeFileSync(target, text);
  console.log(`${artefact.name}: ${artefact.bytecode.length / 2 - 1} bytes, ${same ? "unchanged" : checkOnly ? "STALE" : "written"}`);
}
process.exit(stale ? 1 : 0);

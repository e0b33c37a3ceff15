// Uploads one file with MQTT.js through its ordinary API.
//
//   node mqttjs_upload.js PORT CLIENTID FILEID FILE NAME 4|5 QOS
//
// Prints the response message of fin. Exit status 0 when every publish succeeded.
"use strict";

const fs = require("node:fs");
const mqtt = require("mqtt");

const SEGMENT_BYTES = 10_000;
const [port, clientId, fileId, path, name, version, qosText] = process.argv.slice(2);
const qos = Number(qosText);

async function main() {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, {
    clientId, protocolVersion: Number(version), reconnectPeriod: 0, connectTimeout: 10_000,
  });
  const data = fs.readFileSync(path);
  const fin = `$file/${fileId}/fin/${data.length}`;
  const answer = new Promise((resolve) => client.on("message", (topic, payload) => {
    const body = JSON.parse(payload);
    if (body.topic === fin)
      resolve(body);
  }));
  await client.subscribeAsync(`$file-response/${clientId}`, { qos: 1 });
  await client.publishAsync(`$file/${fileId}/init`, JSON.stringify({ name, size: data.length }), { qos });
  const segments = [];
  for (let at = 0; at < data.length; at += SEGMENT_BYTES)
    segments.push(client.publishAsync(`$file/${fileId}/${at}`, data.subarray(at, at + SEGMENT_BYTES),
      { qos }));
  await Promise.all(segments);
  await client.publishAsync(fin, "", { qos });
  console.log(JSON.stringify(await answer));
  await client.endAsync();
}

setTimeout(() => { console.error("no end within 30 s"); process.exit(2); }, 30_000).unref();
main().catch((error) => { console.error(error); process.exit(1); });

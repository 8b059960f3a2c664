// Answers with an account of every request it has read to its end: node echo.js FOLDER listens on FOLDER/node and, as
// lenient as it can be made, on FOLDER/node-lax.
const http = require("node:http");
const { createHash } = require("node:crypto");
const { join } = require("node:path");

function echo(request, response) {
  const hash = createHash("sha256");
  let length = 0;
  request.on("data", (octets) => {
    length += octets.length;
    hash.update(octets);
  });
  request.on("end", () => {
    const hex = (text) => Buffer.from(text ?? "", "latin1").toString("hex");
    response.setHeader(
      "Echo",
      [hex(request.headers.m), request.method, length, hash.digest("hex").slice(0, 16), hex(request.url)].join(","),
    );
    response.setHeader("Content-Length", 2);
    response.end("ok");
  });
}

for (const [name, insecureHTTPParser] of [["node", false], ["node-lax", true]]) {
  const server = http.createServer({ insecureHTTPParser, maxHeaderSize: 131072, requestTimeout: 0, headersTimeout: 0 }, echo);
  server.keepAliveTimeout = 0;
  server.listen(join(process.argv[2], name));
}

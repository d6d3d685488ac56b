"""An MCP server over stdio, without a library: `write` adds a line to a file that the tests read as the truth."""

import json
import os
import sys
import time

DIARY = "/data/diary"
SCHEMA = {
    "type": "object",
    "properties": {"line": {"type": "string"}, "seconds": {"type": "number"}},
    "required": ["line"],
    "additionalProperties": False,
}


def say(identifier, result):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": identifier, **result}) + "\n")
    sys.stdout.flush()


def write(arguments):
    """The line is on disk before anything is answered; `seconds` pass between the two."""
    with open(DIARY, "a") as diary:
        diary.write(arguments["line"] + "\n")
        diary.flush()
        os.fsync(diary.fileno())
    time.sleep(arguments.get("seconds", 0))
    return {"content": [{"type": "text", "text": f"Written: {arguments['line']}"}]}


def answer(method, parameters):
    if method == "initialize":
        who = {"name": "diary", "version": "1"}
        return {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": who}}
    if method == "tools/list":
        return {"result": {"tools": [{"name": "write", "description": "Write a line.", "inputSchema": SCHEMA}]}}
    if method == "tools/call":
        return {"result": write(parameters["arguments"])}
    return {"error": {"code": -32601, "message": "Method not found"}}


for received in sys.stdin:
    request = json.loads(received)
    if "id" in request:
        say(request["id"], answer(request.get("method"), request.get("params", {})))

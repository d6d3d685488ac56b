"""A server as people write them, over the protocol's own library, on a machine where starting takes its time."""

import json
import sys
import time

from mcp.server.mcpserver import MCPServer

server = MCPServer("stock")


@server.tool()
def echo(a: int) -> str:
    return json.dumps({"a": a})


if __name__ == "__main__":
    time.sleep(float(sys.argv[3]))
    server.run("stdio")

"""Ready-to-paste settings for an agent that runs elsewhere: a generic MCP client, and curl."""

from __future__ import annotations

import json

PLACEHOLDER = "<token>"


def connection_settings(public_url: str, token: str) -> dict[str, str]:
    """Context of missions/parts/connect.html. Without a token the placeholder says where it goes.

    The command makes a whole governed call: judged, carried out, recorded. Proposing by REST is only half of one.
    """
    bearer = token or PLACEHOLDER
    server = {"type": "http", "url": f"{public_url}/mcp", "headers": {"Authorization": f"Bearer {bearer}"}}
    call = {"name": "time__get_current_time", "arguments": {"timezone": "Europe/Helsinki"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    curl = [
        f"curl -s {public_url}/mcp",
        f"-H 'Authorization: Bearer {bearer}'",
        "-H 'Content-Type: application/json'",
        "-H 'Accept: application/json'",
        f"-d '{json.dumps(body)}'",
    ]
    return {
        "mcp_url": f"{public_url}/mcp",
        "mcp_settings": json.dumps({"mcpServers": {"remit": server}}, indent=2),
        "curl_settings": " \\\n  ".join(curl),
    }

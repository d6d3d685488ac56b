"""Ready-to-paste settings for an agent that runs elsewhere: a generic MCP client, and curl."""

from __future__ import annotations

import json

PLACEHOLDER = "<token>"


def connection_settings(public_url: str, token: str) -> dict[str, str]:
    """Context of missions/parts/connect.html. Without a token the placeholder says where it goes."""
    bearer = token or PLACEHOLDER
    server = {"type": "http", "url": f"{public_url}/mcp", "headers": {"Authorization": f"Bearer {bearer}"}}
    body = {"kind": "tool.call", "tool": "time__get_current_time", "arguments": {"timezone": "Europe/Helsinki"}}
    curl = [
        f"curl -s {public_url}/api/v1/actions",
        f"-H 'Authorization: Bearer {bearer}'",
        "-H 'Content-Type: application/json'",
        '-H "Idempotency-Key: $(date +%s%N)"',
        f"-d '{json.dumps(body)}'",
    ]
    return {
        "mcp_url": f"{public_url}/mcp",
        "mcp_settings": json.dumps({"mcpServers": {"remit": server}}, indent=2),
        "curl_settings": " \\\n  ".join(curl),
    }

"""*Bring your own agent*: any MCP or HTTP client, anywhere, with a token and a small remit to try."""

from decimal import Decimal

from agents.catalogue.types import Field, Sample, ServerNeed, Template
from agents.choices import Runtime
from agents.grants import Grant
from agents.servers.types import ToolTraits

TIME = ServerNeed(
    slug="time",
    name="Time",
    environment="time",
    command=("-m", "mcp_server_time", "--local-timezone", "UTC"),
    traits={
        "get_current_time": ToolTraits(read_only=True, reversible=True),
        "convert_time": ToolTraits(read_only=True, reversible=True),
    },
)

BRING_YOUR_OWN = Template(
    code="bring-your-own",
    name="Bring your own agent",
    sentence="Your agent, wherever it runs, works through Remit's MCP address with a token.",
    usual_cost=Decimal("0.01"),
    usual_cost_per="a call",
    icon="external",
    runtime=Runtime.EXTERNAL,
    agent_name="My agent",
    program="",
    goal="Try Remit with an agent of one's own: ask for the time, and convert a time once a person agrees.",
    criteria=("The agent made its first governed call", "It met an answer that needs a person"),
    grants=(
        Grant("time__get_current_time", sentence="Ask for the current time anywhere"),
        Grant("time__convert_time", effect="escalate", sentence="Convert a time between zones, once a person agrees"),
    ),
    budget=Decimal("1.00"),
    steps=500,
    tokens=100_000,
    servers=(TIME,),
    capabilities=("anything its owner says",),
    samples=(
        Sample("Ask for the time in Helsinki", "time__get_current_time", {"timezone": "Europe/Helsinki"}),
        Sample(
            "Convert a time",
            "time__convert_time",
            {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        ),
        Sample("Run a shell command", "shell__run", {"command": "id"}),
    ),
    fields=(
        Field("agent", "Name of your agent", "text", "My agent", "How it appears on every page"),
        Field("title", "Title", "text", "", "What it is for; left empty, the mission is called like the agent"),
        Field("budget", "Budget", "money", "1.00", "It can't spend more than this"),
        Field("hours", "Ends after", "hours", "24", "The token dies then"),
    ),
)

"""The tracker: who serves which key, who waits for one. A pure scheduler, an asyncio rim."""

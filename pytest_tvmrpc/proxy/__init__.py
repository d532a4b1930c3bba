"""The proxy: brings clients and servers together that only reach it. A pure matchmaker, asyncio."""

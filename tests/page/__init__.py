"""The status page in a real browser, before real servers."""

"""The revisions of the schema."""

REVISIONS = ("0001", "0002", "0003", "0005")
"""Every revision that this program knows, oldest first; a test holds it to `migrations/versions`."""

HEAD = REVISIONS[-1]

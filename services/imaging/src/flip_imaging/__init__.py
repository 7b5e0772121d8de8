"""Imaging projects at the hub; PACS, archive, de-identification and conversion at a Trust."""

"""Label Studio's JSON: regions in percent to and from labels in pixels, and whole exports."""

"""Report to what people look at; computes nothing."""

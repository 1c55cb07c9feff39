"""Our own tabs, one module or package each: it has `build(context)`, and is imported when the playground starts."""

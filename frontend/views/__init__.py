"""Pages, one module per area. Views translate: request → service or selector → template. No rules, no queries of their
own."""

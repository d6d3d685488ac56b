"""HTML pages over the services and selectors: views, forms, templates, static files. No models, no rules."""

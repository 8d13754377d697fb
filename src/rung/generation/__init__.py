"""Generation: prompts in, text out. Import from the modules: `engine` (`Engine`), `options` (`SamplingOptions`)."""

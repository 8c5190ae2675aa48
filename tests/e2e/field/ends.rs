//! What ends an answer: tokenizer, config.json and generation_config.json together.

//! Side files of a tokenizer or a model folder, read as transformers reads them.

//! Chat templates as transformers renders them, and where an answer begins and ends in them.

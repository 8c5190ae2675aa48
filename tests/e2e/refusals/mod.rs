//! Wrong requests, odd files and absurd sizes: each is refused by name.

mod odd_files;
mod requests;
mod sizes;
mod together;

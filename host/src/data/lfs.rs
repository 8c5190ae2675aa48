//! Pointers of Git LFS: what a clone without LFS holds in place of a large file.

/// Returns whether `bytes` are a Git LFS pointer and not the file that it stands for.
pub fn lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec")
}

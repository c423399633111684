//! Foreign text, cut to what is kept or shown of it.

/// The longest prefix of at most `max` bytes that ends between two characters.
pub fn truncated(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

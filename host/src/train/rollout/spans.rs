//! Lays numbers for passages of an answer's text on its tokens.

use plugin_api::reward::Span;

/// Returns the number of each token: the sum of the values of the spans whose last character it holds. `ends` has for each token
/// the number of characters of the text up to its end; a character that is spread over several tokens belongs to the last of them.
///
/// # Errors
/// The index of the first span that ends in no token.
pub(super) fn lay(spans: &[Span], ends: &[usize]) -> Result<Vec<f64>, usize> {
    let mut values = vec![0.0; ends.len()];
    for (index, span) in spans.iter().enumerate() {
        // Ends ascend, and a token without text has the end of the token before it.
        let token = ends.partition_point(|end| *end < span.end);
        *values.get_mut(token).ok_or(index)? += span.value;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, end: usize, value: f64) -> Span {
        Span { start, end, value }
    }

    /// Catches a span that is laid on its first token or on the one after it, tokens without text that get numbers, and two spans of
    /// one token that replace each other.
    #[test]
    fn a_span_is_laid_on_the_token_of_its_last_character() {
        // "ab" | "c d" | (an incomplete character) | "é" | (end of text)
        let ends = [2, 5, 5, 6, 6];
        for (spans, expected) in [
            (&[][..], [0.0; 5]),
            (&[span(0, 1, 1.0)], [1.0, 0.0, 0.0, 0.0, 0.0]),
            (&[span(0, 2, 1.0)], [1.0, 0.0, 0.0, 0.0, 0.0]),
            (&[span(1, 3, 1.0)], [0.0, 1.0, 0.0, 0.0, 0.0]),
            (&[span(2, 3, 1.0), span(4, 5, 0.5)], [0.0, 1.5, 0.0, 0.0, 0.0]),
            (&[span(0, 6, -1.0)], [0.0, 0.0, 0.0, -1.0, 0.0]),
        ] {
            assert_eq!(lay(spans, &ends), Ok(expected.to_vec()), "{spans:?}");
        }
        assert_eq!(lay(&[span(0, 1, 1.0), span(6, 7, 1.0)], &ends), Err(1));
        assert_eq!(lay(&[span(0, 1, 1.0)], &[]), Err(0));
    }
}

//! What the author of a misspelt word may have meant.

/// The field the author may have meant: at most two letters away.
pub(crate) fn closest(text: &str, known: &[&'static str]) -> Option<&'static str> {
    if text.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|field| (distance(text, field), *field))
        .filter(|(distance, field)| *distance <= 2 && *distance < field.len() / 2)
        .min()
        .map(|(_, field)| field)
}

/// Levenshtein distance, letter case apart.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substitution = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_letters_may_be_wrong_in_a_long_word() {
        let known = ["principals", "ports", "to"];
        assert_eq!(closest("principal", &known), Some("principals"));
        assert_eq!(closest("Prots", &known), None);
        assert_eq!(closest("port", &known), Some("ports"));
        assert_eq!(closest("x", &known), None);
    }
}

//! Adds up the result lines of test programs.

/// Sums of the test runner's result lines.
#[derive(Default, Debug, PartialEq)]
pub struct Totals {
    binaries: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Adds a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; ...`; skips any other.
    pub fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
        self.binaries += 1;
        for count in counts.1.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Prints the sums as one more result line.
    pub fn print(&self) {
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        let Totals { binaries, passed, failed, ignored } = self;
        println!(
            "test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; in {binaries} test programs"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches sums that use the wrong column or count a line that is not a result.
    #[test]
    fn result_lines_are_added_up() {
        let mut totals = Totals::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s",
            "test tape::sum ... ok",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            totals.add(line);
        }
        assert_eq!(totals, Totals { binaries: 2, passed: 14, failed: 4, ignored: 1 });
    }
}

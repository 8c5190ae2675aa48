//! Figures of evaluations as text.

use std::fmt;

use crate::{
    decimals::{counted, fixed},
    inference::{
        evaluate_rows::RowFigures,
        saved_model::TextFigures,
        tasks::{checked::CheckedFigures, choices::ChoiceFigures, win_rate::WinFigures},
    },
};

/// The most documents of which each is printed.
const SHOWN: usize = 20;

/// A standard error behind its figure.
fn error(stderr: Option<f64>, digits: usize) -> String {
    stderr.map_or(String::new(), |stderr| format!(" ± {stderr:.digits$}"))
}

/// A share as a percentage with its standard error.
fn percent(share: f64, stderr: Option<f64>) -> String {
    format!("{:.2} %{}", 100.0 * share, error(stderr.map(|stderr| 100.0 * stderr), 2))
}

impl fmt::Display for ChoiceFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accuracy         {}, by the log-probability of the choice (acc)",
            percent(self.accuracy, self.accuracy_stderr)
        )?;
        writeln!(f, "  per token      {}", percent(self.accuracy_per_token, self.accuracy_per_token_stderr))?;
        let per_character = percent(self.accuracy_per_character, self.accuracy_per_character_stderr);
        writeln!(f, "  per character  {per_character} (acc_norm)")?;
        writeln!(f, "chance           {:.2} %", 100.0 * self.chance)?;
        write!(f, "questions        {}", self.questions)?;
        if self.truncated > 0 {
            write!(f, "; {} choices had their prompts cut on the left to fit into the context", self.truncated)?;
        }
        Ok(())
    }
}

impl fmt::Display for CheckedFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (score, reward) = (fixed(self.score, 4), &self.reward);
        writeln!(f, "score           {score}{}, mean of the reward \"{reward}\"", error(self.score_stderr, 4))?;
        for (k, share) in &self.pass_at {
            let stderr = self.pass_at_stderr.get(k).copied().flatten();
            writeln!(f, "{:<16}{}", format!("pass@{k}"), percent(*share, stderr))?;
        }
        let answers = if self.samples == 1 { "one answer".to_owned() } else { format!("{} answers", self.samples) };
        writeln!(
            f,
            "prompts         {}, {answers} to each; {:.2} % of the answers ended",
            self.prompts,
            100.0 * self.ended
        )
    }
}

impl fmt::Display for WinFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WinFigures { wins, losses, ties, prompts, .. } = self;
        writeln!(
            f,
            "win rate        {} of the first answers; a tie counts half",
            percent(self.win_rate, self.win_rate_stderr)
        )?;
        writeln!(f, "wins            {wins}, losses {losses}, ties {ties}")?;
        writeln!(f, "score           {}, the second answers {}", fixed(self.score, 4), fixed(self.other_score, 4))?;
        writeln!(f, "difference      {}{}", fixed(self.difference, 4), error(self.difference_stderr, 4))?;
        write!(f, "prompts         {prompts}")?;
        for (count, why) in [
            (self.too_long, "a prompt with its answer is too long for the reward model"),
            (self.empty, "an answer is empty and was cut off"),
            (self.unanswered, "a prompt was too long to be answered"),
        ] {
            if count > 0 {
                write!(f, "; {} left out, because {why}", counted(count, "pair"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for RowFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(loss), Some(accuracy)) = (self.loss, self.token_accuracy) {
            let ends = if self.ends_counted { "their ends counted" } else { "their ends not counted" };
            writeln!(
                f,
                "loss            {loss:.6}{} nats per token of the completions, {ends}",
                error(self.loss_stderr, 6)
            )?;
            writeln!(f, "perplexity      {:.4}", loss.exp())?;
            writeln!(f, "token accuracy  {}", percent(accuracy, self.token_accuracy_stderr))?;
            writeln!(f, "tokens          {}", self.tokens)?;
        }
        if let Some(share) = self.exact_match {
            writeln!(
                f,
                "exact match     {} of {} greedy answers",
                percent(share, self.exact_match_stderr),
                self.answers
            )?;
        }
        if let Some(checked) = &self.checked {
            write!(f, "{checked}")?;
        }
        // All rows are evaluated, so the notes about some of them follow after that number.
        let rows = self.rows.to_string();
        let notes = rows.split_once("; ").map_or(String::new(), |(_, notes)| format!("; {notes}"));
        write!(f, "rows            {}{notes}", self.rows.train)?;
        if self.unanswered > 0 {
            write!(f, "; {} skipped: their prompt was too long to be answered", self.unanswered)?;
        }
        Ok(())
    }
}

impl fmt::Display for TextFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = match self.end_tokens {
            1 => "1 end-of-text token".to_owned(),
            several => format!("{several} end-of-text tokens"),
        };
        let counted = self.end_tokens > 0;
        let how = if counted { format!(", {ends} counted") } else { String::new() };
        let text = |value: Option<f64>| value.filter(|_| counted);
        writeln!(f, "loss            {:.6} nats per token{how}{}", self.loss, error(self.loss_stderr, 6))?;
        if let Some(loss) = text(self.loss_without_end) {
            writeln!(f, "  text alone    {loss:.6} nats per token")?;
        }
        writeln!(f, "perplexity      {:.4}", self.perplexity)?;
        if let Some(perplexity) = text(self.perplexity_without_end) {
            writeln!(f, "  text alone    {perplexity:.4}")?;
        }
        writeln!(f, "bits per byte   {:.4}", self.bits_per_byte)?;
        if let Some(bits) = text(self.bits_per_byte_without_end) {
            writeln!(f, "  text alone    {bits:.4}")?;
        }
        writeln!(f, "token accuracy  {}", percent(self.token_accuracy, self.token_accuracy_stderr))?;
        writeln!(f, "tokens          {}", self.tokens)?;
        write!(f, "bytes           {}", self.bytes)?;
        if self.documents.len() < 2 {
            return Ok(());
        }
        write!(f, "\ndocuments       {}: loss, perplexity, the same without its end, tokens", self.documents.len())?;
        for of in self.documents.iter().take(SHOWN) {
            let without = match (of.loss_without_end, of.perplexity_without_end) {
                (Some(loss), Some(perplexity)) => format!("{loss:.6}  {perplexity:.4}"),
                _ => "-  -".to_owned(),
            };
            write!(f, "\n  {}  {:.6}  {:.4}  {without}  {}", of.document, of.loss, of.perplexity, of.tokens)?;
        }
        let more = self.documents.len().saturating_sub(SHOWN);
        if more > 0 { write!(f, "\n  and {more} more; --out FILE writes all") } else { Ok(()) }
    }
}

//! Figures for people: a Markdown table, in which a figure that was to be reached and was not says so.

use std::fmt;

use serde_json::Value;

/// A table and what is kept of it.
pub struct Table {
    pub title: &'static str,
    /// What was measured, in a sentence or two.
    pub text: String,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    /// The raw times, by row.
    pub raw: Vec<Value>,
}

impl Table {
    pub fn new(title: &'static str, text: String, head: &[&'static str]) -> Self {
        Self {
            title,
            text,
            head: head.to_vec(),
            rows: Vec::new(),
            raw: Vec::new(),
        }
    }

    pub fn add(&mut self, row: Vec<String>, raw: impl serde::Serialize) {
        let raw = serde_json::json!({ "row": row[0], "seconds": raw });
        self.rows.push(row);
        self.raw.push(raw);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n\n{}\n", self.title, self.text)?;
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "|---{}|", "|---:".repeat(self.head.len() - 1))?;
        self.rows
            .iter()
            .try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// A ratio that was to be so much at least.
pub fn at_least(ratio: f64, least: f64) -> String {
    told(ratio, ratio >= least)
}

/// A ratio that was to be so much at most.
pub fn at_most(ratio: f64, most: f64) -> String {
    told(ratio, ratio <= most)
}

/// A ratio of which nothing was asked.
pub fn only(ratio: f64) -> String {
    told(ratio, true)
}

fn told(ratio: f64, met: bool) -> String {
    let digits = if ratio < 10.0 { 2 } else { 1 };
    format!("{ratio:.digits$}{}", if met { "" } else { ", not met" })
}

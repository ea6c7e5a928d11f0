//! A Rust file as the checks see it: its place in the crate, and its tokens without comments and literals.

/// One file of `src/`.
pub(super) struct Source {
    /// As it is shown: `src/wire/mod.rs`.
    pub(super) path: String,
    /// Modules from the root of the crate: `["wire", "evaluation"]`. Empty for `lib.rs`.
    pub(super) module: Vec<String>,
    pub(super) tokens: Vec<Token>,
    /// Modules of other files that this one declares for tests only.
    pub(super) test_modules: Vec<Vec<String>>,
    pub(super) lines: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    /// An identifier, `::`, `"` for a string of any kind, or a single character.
    pub(super) text: String,
    pub(super) line: usize,
    /// Stands in an item that is compiled for tests only.
    pub(super) in_test: bool,
    /// How many modules are open around it within the file.
    pub(super) inner_modules: usize,
}

/// A path such as `crate::a::b`, or one of the paths that a group such as `crate::{a, b}` stands for: its first name and where it is.
pub(super) struct Named<'s> {
    pub(super) name: &'s str,
    pub(super) line: usize,
}

impl Source {
    pub(super) fn read(path: &str, text: &str) -> Self {
        let module: Vec<String> = match path.trim_start_matches("src/").trim_end_matches(".rs") {
            "lib" => Vec::new(),
            inner => inner.split('/').filter(|name| *name != "mod").map(str::to_owned).collect(),
        };
        let mut source =
            Self { path: path.to_owned(), module, tokens: tokens(text), test_modules: Vec::new(), lines: text.lines().count() };
        source.mark_tests();
        source.mark_inner_modules();
        source
    }

    /// The part of the house: the first name of the module path. `lib` and `main` are parts of their own.
    pub(super) fn part(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    pub(super) fn is(&self, at: usize, wanted: &[&str]) -> bool {
        wanted.iter().enumerate().all(|(offset, text)| self.tokens.get(at + offset).is_some_and(|token| token.text == *text))
    }

    /// What is named directly below the root of the crate: by `crate::`, by `yardarm::`, or by enough `super::`.
    pub(super) fn parts_named(&self) -> Vec<Named<'_>> {
        let mut named = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            if at > 0 && self.is(at - 1, &["::"]) {
                continue;
            }
            match token.text.as_str() {
                "crate" | "yardarm" if self.is(at + 1, &["::"]) => named.extend(self.heads(at + 2)),
                "super" => {
                    let depth = self.module.len() + token.inner_modules;
                    let supers = (0..).take_while(|n| self.is(at + 2 * n, &["super", "::"])).count();
                    if supers >= depth && supers > 0 {
                        named.extend(self.heads(at + 2 * supers));
                    }
                }
                _ => {}
            }
        }
        named
    }

    /// The first names of the paths that begin at a token: one, or each of a group in braces.
    pub(super) fn heads(&self, at: usize) -> Vec<Named<'_>> {
        let Some(first) = self.tokens.get(at) else { return Vec::new() };
        if first.text != "{" {
            return vec![Named { name: &first.text, line: first.line }];
        }
        let mut heads = Vec::new();
        let (mut depth, mut at_head) = (0, false);
        for token in &self.tokens[at..] {
            match token.text.as_str() {
                "{" => (depth, at_head) = (depth + 1, depth == 0),
                "}" => depth -= 1,
                "," => at_head = depth == 1,
                _ if at_head => {
                    heads.push(Named { name: &token.text, line: token.line });
                    at_head = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        heads
    }

    fn mark_tests(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            let Some(after) = self.test_attribute(at) else {
                at += 1;
                continue;
            };
            let end = self.end_of_item(after);
            for module in after..end {
                if self.is(module, &["mod"]) && self.is(module + 2, &[";"]) {
                    let name = self.tokens[module + 1].text.clone();
                    self.test_modules.push([self.module.clone(), vec![name]].concat());
                }
            }
            self.tokens[at..end].iter_mut().for_each(|token| token.in_test = true);
            at = end;
        }
    }

    /// Where `#[cfg(test)]` or `#[cfg(all(test, …))]` ends, if one begins here.
    fn test_attribute(&self, at: usize) -> Option<usize> {
        if !self.is(at, &["#", "[", "cfg", "("]) {
            return None;
        }
        let end = at + 2 + self.tokens[at + 2..].iter().position(|token| token.text == "]")?;
        let says = |name: &str| self.tokens[at..end].iter().any(|token| token.text == name);
        (says("test") && !says("not") && !says("any")).then_some(end + 1)
    }

    /// After the `;` or the closing brace of the item that begins here.
    fn end_of_item(&self, from: usize) -> usize {
        let (mut braces, mut brackets) = (0_usize, 0_usize);
        for (offset, token) in self.tokens[from..].iter().enumerate() {
            match token.text.as_str() {
                "(" | "[" => brackets += 1,
                ")" | "]" => brackets = brackets.saturating_sub(1),
                "{" => braces += 1,
                "}" => braces = braces.saturating_sub(1),
                _ => {}
            }
            let ends = token.text == "}" || token.text == ";";
            if ends && braces == 0 && brackets == 0 {
                return from + offset + 1;
            }
        }
        self.tokens.len()
    }

    fn mark_inner_modules(&mut self) {
        let mut open: Vec<bool> = Vec::new();
        for at in 0..self.tokens.len() {
            match self.tokens[at].text.as_str() {
                "{" => open.push(at >= 2 && self.tokens[at - 2].text == "mod"),
                "}" => drop(open.pop()),
                _ => {}
            }
            self.tokens[at].inner_modules = open.iter().filter(|is_module| **is_module).count();
        }
    }
}

/// Splits a file; comments and the inside of strings are gone, so that only code can break a rule.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            _ if string(rest).is_some() => {
                push(&mut tokens, "\"".to_owned(), line);
                string(rest).unwrap_or(1)
            }
            ['\'', '\\', ..] => 3 + rest[3.min(rest.len())..].iter().position(|c| *c == '\'').map_or(0, |end| end + 1),
            ['\'', _, '\'', ..] => 3,
            [':', ':', ..] => push(&mut tokens, "::".to_owned(), line),
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let word = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                push(&mut tokens, word, line)
            }
            [c, ..] if c.is_whitespace() => 1,
            [c, ..] => push(&mut tokens, c.to_string(), line),
            [] => break,
        };
        line += chars[at..(at + length).min(chars.len())].iter().filter(|c| **c == '\n').count();
        at += length;
    }
    tokens
}

fn push(tokens: &mut Vec<Token>, text: String, line: usize) -> usize {
    let length = text.chars().count();
    tokens.push(Token { text, line, in_test: false, inner_modules: 0 });
    length
}

/// Block comments nest in Rust.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// How long the string is that begins here, if one does.
fn string(rest: &[char]) -> Option<usize> {
    match rest {
        ['"', ..] => Some(quoted(rest, 1)),
        ['b' | 'c', '"', ..] => Some(quoted(rest, 2)),
        ['r', '"' | '#', ..] => raw_string(rest, 1),
        ['b' | 'c', 'r', '"' | '#', ..] => raw_string(rest, 2),
        _ => None,
    }
}

fn quoted(rest: &[char], from: usize) -> usize {
    let mut at = from;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `None` for a raw identifier such as `r#type`.
fn raw_string(rest: &[char], from: usize) -> Option<usize> {
    let hashes = rest[from..].iter().take_while(|c| **c == '#').count();
    let start = from + hashes + 1;
    if rest.get(start - 1) != Some(&'"') {
        return None;
    }
    let end =
        (start..rest.len()).find(|at| rest[*at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes);
    Some(end.map_or(rest.len(), |end| end + 1 + hashes))
}

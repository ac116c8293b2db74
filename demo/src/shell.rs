//! A minimal shell: the tools as built-ins, variables, quotes, `;` `&&` `||`, `>` and `>>`, `if`, `while`, `for`.
//!
//! Never here: processes. Everything runs in this one, so there are no pipes and no background jobs.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};

use crate::applets;

/// Runs `sh -c CMD`, `sh FILE`, or commands from standard input; the result is the exit code.
pub fn run(args: &[String]) -> i32 {
    let mut shell = Shell { variables: BTreeMap::new(), status: 0, arguments: Vec::new(), exit: None };
    match args.first().map(String::as_str) {
        Some("-c") => match args.get(1) {
            Some(text) => {
                shell.arguments = args[2..].to_vec();
                shell.evaluate(text);
            }
            None => return complain("-c needs a command"),
        },
        Some(path) if !path.starts_with('-') => match std::fs::read_to_string(path) {
            Ok(text) => {
                shell.arguments = args.to_vec();
                shell.evaluate(&text);
            }
            Err(error) => return complain(&format!("{path}: {error}")),
        },
        _ => shell.interact(),
    }
    shell.exit.unwrap_or(shell.status)
}

fn complain(message: &str) -> i32 {
    eprintln!("sh: {message}");
    2
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A word, still with its quotes.
    Word(String),
    /// `;`, `&&`, `||`, `>`, `>>`.
    Operator(&'static str),
}

#[derive(Clone, Debug)]
enum Command {
    Simple { words: Vec<String>, redirect: Option<(String, bool)> },
    Sequence(Vec<(Command, &'static str)>),
    If { condition: Box<Command>, then: Box<Command>, otherwise: Option<Box<Command>> },
    While { condition: Box<Command>, body: Box<Command> },
    For { name: String, words: Vec<String>, body: Box<Command> },
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    let mut quote = None;
    let flush = |word: &mut String, out: &mut Vec<Token>| {
        if !word.is_empty() {
            out.push(Token::Word(std::mem::take(word)));
        }
    };
    while let Some(c) = chars.next() {
        if let Some(open) = quote {
            word.push(c);
            if c == open {
                quote = None;
            } else if c == '\\' && open == '"' {
                word.extend(chars.next());
            }
            continue;
        }
        match c {
            '\'' | '"' => {
                quote = Some(c);
                word.push(c);
            }
            '\\' => {
                word.push(c);
                word.extend(chars.next());
            }
            '#' if word.is_empty() => while chars.next_if(|c| *c != '\n').is_some() {},
            ' ' | '\t' | '\r' => flush(&mut word, &mut out),
            '\n' | ';' => {
                flush(&mut word, &mut out);
                if !matches!(out.last(), None | Some(Token::Operator(";"))) {
                    out.push(Token::Operator(";"));
                }
            }
            '&' | '|' => {
                flush(&mut word, &mut out);
                if chars.next_if_eq(&c).is_none() {
                    return Err(format!("`{c}` is not supported: no pipes, no background jobs"));
                }
                out.push(Token::Operator(if c == '&' { "&&" } else { "||" }));
            }
            '>' => {
                flush(&mut word, &mut out);
                out.push(Token::Operator(if chars.next_if_eq(&'>').is_some() { ">>" } else { ">" }));
            }
            _ => word.push(c),
        }
    }
    flush(&mut word, &mut out);
    match quote {
        Some(open) => Err(format!("unmatched {open}")),
        None => Ok(out),
    }
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    fn at_word(&self, words: &[&str]) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if words.contains(&word.as_str()))
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.at_word(&[word]) {
            self.position += 1;
            Ok(())
        } else {
            Err(format!("syntax error: `{word}` expected"))
        }
    }

    fn skip_separators(&mut self) {
        while self.peek() == Some(&Token::Operator(";")) {
            self.position += 1;
        }
    }

    /// A list up to one of `ends` or the end of the text.
    fn list(&mut self, ends: &[&str]) -> Result<Command, String> {
        let mut parts = Vec::new();
        let mut joint = ";";
        self.skip_separators();
        while self.peek().is_some() && !self.at_word(ends) {
            parts.push((self.command()?, joint));
            match self.peek() {
                Some(Token::Operator(operator @ (";" | "&&" | "||"))) => {
                    joint = operator;
                    self.position += 1;
                    self.skip_separators();
                }
                _ => break,
            }
        }
        Ok(Command::Sequence(parts))
    }

    fn command(&mut self) -> Result<Command, String> {
        if self.at_word(&["if"]) {
            self.position += 1;
            let condition = Box::new(self.list(&["then"])?);
            self.expect("then")?;
            let then = Box::new(self.list(&["else", "fi"])?);
            let otherwise = if self.at_word(&["else"]) {
                self.position += 1;
                Some(Box::new(self.list(&["fi"])?))
            } else {
                None
            };
            self.expect("fi")?;
            return Ok(Command::If { condition, then, otherwise });
        }
        if self.at_word(&["while"]) {
            self.position += 1;
            let condition = Box::new(self.list(&["do"])?);
            let body = self.body()?;
            return Ok(Command::While { condition, body });
        }
        if self.at_word(&["for"]) {
            self.position += 1;
            let name = self.word().ok_or("syntax error: a name expected after `for`")?;
            self.expect("in")?;
            let mut words = Vec::new();
            while let Some(word) = self.word() {
                words.push(word);
            }
            self.skip_separators();
            let body = self.body()?;
            return Ok(Command::For { name, words, body });
        }
        let mut words = Vec::new();
        let mut redirect = None;
        loop {
            match self.peek() {
                Some(Token::Word(word)) => {
                    words.push(word.clone());
                    self.position += 1;
                }
                Some(Token::Operator(operator @ (">" | ">>"))) => {
                    let append = *operator == ">>";
                    self.position += 1;
                    redirect = Some((self.word().ok_or("syntax error: a file expected after `>`")?, append));
                }
                _ => break,
            }
        }
        if words.is_empty() && redirect.is_none() {
            return Err("syntax error: a command expected".to_owned());
        }
        Ok(Command::Simple { words, redirect })
    }

    fn word(&mut self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.position += 1;
                Some(word)
            }
            _ => None,
        }
    }

    fn body(&mut self) -> Result<Box<Command>, String> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(Box::new(body))
    }
}

struct Shell {
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
    status: i32,
    exit: Option<i32>,
}

impl Shell {
    fn interact(&mut self) {
        let terminal = std::io::stdin().is_terminal();
        let mut line = String::new();
        while self.exit.is_none() {
            if terminal {
                print!("# ");
                let _ = std::io::stdout().flush();
            }
            line.clear();
            match std::io::stdin().lock().read_line(&mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => self.evaluate(&line),
            }
        }
    }

    fn evaluate(&mut self, text: &str) {
        let parsed = tokens(text).and_then(|tokens| {
            let mut parser = Parser { tokens, position: 0 };
            let list = parser.list(&[])?;
            if parser.peek().is_some() { Err("syntax error".to_owned()) } else { Ok(list) }
        });
        match parsed {
            Ok(command) => self.execute(&command),
            Err(error) => self.status = complain(&error),
        }
    }

    fn execute(&mut self, command: &Command) {
        if self.exit.is_some() {
            return;
        }
        match command {
            Command::Sequence(parts) => {
                for (part, joint) in parts {
                    let wanted = match *joint {
                        "&&" => self.status == 0,
                        "||" => self.status != 0,
                        _ => true,
                    };
                    if wanted {
                        self.execute(part);
                    }
                }
            }
            Command::If { condition, then, otherwise } => {
                self.execute(condition);
                if self.status == 0 {
                    self.execute(then);
                } else if let Some(otherwise) = otherwise {
                    self.execute(otherwise);
                } else {
                    self.status = 0;
                }
            }
            Command::While { condition, body } => loop {
                self.execute(condition);
                if self.status != 0 || self.exit.is_some() {
                    self.status = 0;
                    break;
                }
                self.execute(body);
            },
            Command::For { name, words, body } => {
                let values: Vec<String> = words.iter().flat_map(|word| self.expand(word)).collect();
                for value in values {
                    self.variables.insert(name.clone(), value);
                    self.execute(body);
                }
            }
            Command::Simple { words, redirect } => self.simple(words, redirect.as_ref()),
        }
    }

    fn simple(&mut self, words: &[String], redirect: Option<&(String, bool)>) {
        if let [assignment] = words
            && let Some((name, value)) = assignment.split_once('=')
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            let value = self.expand(value).join(" ");
            self.variables.insert(name.to_owned(), value);
            self.status = 0;
            return;
        }
        let words: Vec<String> = words.iter().flat_map(|word| self.expand(word)).collect();
        let Some((name, args)) = words.split_first() else { return };
        let name = name.rsplit('/').next().unwrap_or(name);
        if let Some((file, append)) = redirect {
            self.status = self.redirected(name, args, file, *append);
            return;
        }
        self.status = match name {
            "exit" => {
                let code = args.first().map_or(Some(self.status), |code| code.parse().ok()).unwrap_or(2);
                self.exit = Some(code);
                code
            }
            "cd" => match std::env::set_current_dir(args.first().map_or("/", String::as_str)) {
                Ok(()) => 0,
                Err(error) => complain(&error.to_string()),
            },
            "pwd" => {
                println!("{}", std::env::current_dir().unwrap_or_default().display());
                0
            }
            "help" => {
                println!("exit cd pwd help {}", applets::NAMES.join(" "));
                0
            }
            "sh" => run(args),
            _ => applets::run(name, args).unwrap_or_else(|| {
                eprintln!("sh: {name}: not found; `help` lists what there is");
                127
            }),
        };
    }

    /// Only `echo` writes to files: the other tools print to the terminal.
    fn redirected(&mut self, name: &str, args: &[String], file: &str, append: bool) -> i32 {
        if name != "echo" {
            return complain("only `echo TEXT > FILE` can be redirected");
        }
        let path = self.expand(file).concat();
        let opened =
            std::fs::OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(&path);
        match opened.and_then(|mut file| writeln!(file, "{}", args.join(" "))) {
            Ok(()) => 0,
            Err(error) => complain(&format!("{path}: {error}")),
        }
    }

    /// Removes quotes and puts variables in. An unquoted word that becomes empty vanishes.
    fn expand(&self, word: &str) -> Vec<String> {
        let mut out = String::new();
        let mut quoted = false;
        let mut quote = None;
        let mut chars = word.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, quote) {
                ('\'' | '"', None) => {
                    quote = Some(c);
                    quoted = true;
                }
                (c, Some(open)) if c == open => quote = None,
                ('\\', None | Some('"')) => out.extend(chars.next()),
                ('$', None | Some('"')) => {
                    let name: String = if chars.next_if_eq(&'{').is_some() {
                        std::iter::from_fn(|| chars.next().filter(|c| *c != '}')).collect()
                    } else if let Some(special) = chars.next_if(|c| matches!(c, '?' | '$' | '0'..='9')) {
                        special.to_string()
                    } else {
                        std::iter::from_fn(|| chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_'))
                            .collect()
                    };
                    if name.is_empty() {
                        out.push('$');
                    } else {
                        out.push_str(&self.variable(&name));
                    }
                }
                (c, _) => out.push(c),
            }
        }
        if out.is_empty() && !quoted { Vec::new() } else { vec![out] }
    }

    fn variable(&self, name: &str) -> String {
        if name == "?" {
            return self.status.to_string();
        }
        if name == "$" {
            return std::process::id().to_string();
        }
        if let Ok(index) = name.parse::<usize>() {
            return self.arguments.get(index).cloned().unwrap_or_default();
        }
        self.variables.get(name).cloned().or_else(|| std::env::var(name).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(text: &str) -> i32 {
        run(&["-c".to_owned(), text.to_owned()])
    }

    #[test]
    fn exit_codes_follow_the_last_command() {
        assert_eq!(sh("true"), 0);
        assert_eq!(sh("false"), 1);
        assert_eq!(sh("exit 7"), 7);
        assert_eq!(sh("false || exit 3; exit 4"), 3);
        assert_eq!(sh("true && false"), 1);
        assert_eq!(sh("nosuchtool"), 127);
    }

    #[test]
    fn loops_conditions_and_variables_work() {
        assert_eq!(sh("x=1; for i in 1 2 3; do x=$i; done; exit $x"), 3);
        assert_eq!(sh("if false; then exit 1; else exit 5; fi"), 5);
        assert_eq!(sh("while true; do exit 6; done"), 6);
        assert_eq!(sh("false; exit $?"), 1);
    }

    #[test]
    fn what_is_not_supported_says_so() {
        assert_eq!(sh("echo a | cat"), 2);
        assert_eq!(sh("echo 'open"), 2);
        assert_eq!(sh("if true"), 2);
    }

    #[test]
    fn echo_writes_and_appends_to_a_file() {
        let path = std::env::temp_dir().join(format!("coracle-demo-shell-{}", std::process::id()));
        assert_eq!(sh(&format!("echo one > {0}; echo two >> {0}", path.display())), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        std::fs::remove_file(&path).unwrap();
    }
}

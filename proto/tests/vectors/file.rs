//! The form of a vector: `name: value` lines, an empty line, then named sections.
//!
//! ```text
//! kind: receipt
//! expect: ok
//! key: 1398f62c…
//!
//! --- body base64
//! c29uYWUv…
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use data_encoding::BASE64;

/// One vector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vector {
    pub fields: Vec<(String, String)>,
    pub sections: BTreeMap<String, Section>,
}

/// Bytes, written as text where they are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Section {
    Text(String),
    Bytes(Vec<u8>),
}

impl Vector {
    pub fn new(kind: &str, expect: &str, comment: &str) -> Self {
        Self::default().field("kind", kind).field("expect", expect).field("comment", comment)
    }

    pub fn field(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.sections.insert(name.to_owned(), Section::Text(text.to_owned()));
        self
    }

    pub fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        self.sections.insert(name.to_owned(), Section::Bytes(bytes.to_vec()));
        self
    }

    pub fn get(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("a vector without '{name}'"))
    }

    pub fn section(&self, name: &str) -> Vec<u8> {
        match self.sections.get(name) {
            Some(Section::Text(text)) => text.clone().into_bytes(),
            Some(Section::Bytes(bytes)) => bytes.clone(),
            None => panic!("a vector without section '{name}'"),
        }
    }

    pub fn section_text(&self, name: &str) -> String {
        String::from_utf8(self.section(name)).unwrap()
    }

    pub fn to_file(&self) -> String {
        let mut file = String::new();
        for (name, value) in &self.fields {
            writeln!(file, "{name}: {value}").unwrap();
        }
        for (name, section) in &self.sections {
            match section {
                Section::Text(text) => write!(file, "\n--- {name} text\n{text}\n").unwrap(),
                Section::Bytes(bytes) => {
                    write!(file, "\n--- {name} base64\n").unwrap();
                    let encoded = BASE64.encode(bytes);
                    for row in encoded.as_bytes().chunks(76) {
                        writeln!(file, "{}", String::from_utf8_lossy(row)).unwrap();
                    }
                }
            }
        }
        file
    }

    pub fn from_file(file: &str) -> Self {
        let mut parts = file.split("\n--- ");
        let mut vector = Self::default();
        for line in parts.next().unwrap().lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            vector = vector.field(name, value);
        }
        for part in parts {
            let (title, body) = part.split_once('\n').unwrap();
            // The line end before the next section, or at the end of the file, is not part of a text.
            let body = body.strip_suffix('\n').unwrap_or(body);
            vector = match title.split_once(' ').unwrap() {
                (name, "text") => vector.text(name, body),
                (name, _) => {
                    let joined: String = body.split_whitespace().collect();
                    vector.bytes(name, &BASE64.decode(joined.as_bytes()).unwrap())
                }
            };
        }
        vector
    }
}

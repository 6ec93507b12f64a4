//! Schemas that all hold (`allOf`, and `$ref` with something beside it) as one schema: their properties together.

use super::ordered::Node;

/// What says something about the type of a value; the rest are constraints and comments. Of these, two schemas may not say two things.
pub(super) const OF_TYPE: [&str; 10] = [
    "type",
    "format",
    "items",
    "additionalProperties",
    "contentEncoding",
    "precision",
    "scale",
    "encoding",
    "anyOf",
    "oneOf",
];

/// Adds what another schema says. Fails with the word of which the two say different things.
pub(super) fn merge(into: &mut Vec<(String, Node)>, other: &Node) -> Result<(), String> {
    for (word, said) in other.members() {
        match (word.as_str(), into.iter_mut().find(|(own, _)| own == word)) {
            (_, None) => into.push((word.clone(), said.clone())),
            (_, Some((_, own))) if *own == *said => {}
            ("properties", Some((_, Node::Object(own)))) => said.members().iter().for_each(|property| add(own, property)),
            ("required", Some((_, Node::List(own)))) => own.extend(said.list().unwrap_or_default().iter().cloned()),
            ("additionalProperties", Some((_, Node::Boolean(_)))) if matches!(said, Node::Boolean(_)) => {}
            (word, Some(_)) if OF_TYPE.contains(&word) => return Err(word.to_owned()),
            _ => {}
        }
    }
    Ok(())
}

/// Adds a property. Of one that is there already, both schemas hold.
fn add(properties: &mut Vec<(String, Node)>, (name, schema): &(String, Node)) {
    match properties.iter_mut().find(|(own, _)| own == name) {
        None => properties.push((name.clone(), schema.clone())),
        Some((_, own)) if *own == *schema => {}
        Some((_, own)) => {
            let comment = own.get("description").or_else(|| schema.get("description")).cloned();
            let comment = comment.map(|text| ("description".to_owned(), text));
            let both = Node::List(vec![own.clone(), schema.clone()]);
            *own = Node::Object([("allOf".to_owned(), both)].into_iter().chain(comment).collect());
        }
    }
}

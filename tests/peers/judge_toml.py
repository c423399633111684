"""Judges documents by a JSON Schema, by a validator that is not ours.

Reads a schema from the file that is its argument, and from standard input one document a line: {"json": DOCUMENT} or
{"toml": TEXT}. Answers each by one line: a list of [PATH, KEYWORD, MESSAGE], empty where the document is valid.
"""

import json
import sys
import tomllib

from jsonschema import Draft202012Validator


def errors(validator, document):
    for error in validator.iter_errors(document):
        yield [list(map(str, error.absolute_path)), error.validator, error.message[:300]]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for line in sys.stdin:
        given = json.loads(line)
        document = tomllib.loads(given["toml"]) if "toml" in given else given["json"]
        print(json.dumps(list(errors(validator, document))), flush=True)


main()

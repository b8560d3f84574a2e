// The fields of a JSON object, for the messages of docs/protocol.md. It allocates nothing but the strings it returns.
#pragma once

#include <string>

namespace voicecare {

// Returns the string with this name in the outermost object, or "" if there is none. \u escapes become "?": ids and
// codes have none.
inline std::string stringField(const std::string& json, const std::string& name) {
  int depth = 0;
  bool inString = false, isName = false, expectsName = false, isWanted = false;
  std::string text;
  for (size_t at = 0; at < json.size(); at++) {
    const char c = json[at];
    if (inString) {
      if (c == '\\' && at + 1 < json.size()) {
        const char escaped = json[++at];
        if (escaped == 'u') {
          text += '?';
          at += 4;
        } else {
          text += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped == 'r' ? '\r' : escaped;
        }
      } else if (c != '"') {
        text += c;
      } else {
        inString = false;
        if (depth == 1 && isName) {
          isWanted = text == name;
        } else if (depth == 1 && isWanted) {
          return text;
        }
      }
    } else if (c == '"') {
      inString = true;
      isName = depth == 1 && expectsName;
      expectsName = false;
      text.clear();
    } else if (c == '{' || c == '[') {
      depth++;
      expectsName = depth == 1;
    } else if (c == '}' || c == ']') {
      depth--;
    } else if (c == ',' && depth == 1) {
      expectsName = true;
      isWanted = false;
    }
  }
  return "";
}

// Returns the text as a JSON string, with its quotes. The text is UTF-8.
inline std::string quoted(const std::string& text) {
  static const char hex[] = "0123456789abcdef";
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      json += "\\u00";
      json += hex[c >> 4];
      json += hex[c & 15];
    } else {
      json += c;
    }
  }
  return json + "\"";
}

}  // namespace voicecare

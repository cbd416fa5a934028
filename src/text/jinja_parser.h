// Tokens of a chat template to its syntax tree: recursive descent, bounded in depth.
//
// The grammar is Jinja's, with the loop controls and the generation block that transformers adds.
// Tags that load other templates are refused by name.
#pragma once

#include "base/result.h"
#include "text/jinja_ast.h"

#include <memory>
#include <string>
#include <string_view>

namespace pinhole::jinja {

Result<std::unique_ptr<Ast>> parse_template(std::string_view source, const std::string& where);

} // namespace pinhole::jinja

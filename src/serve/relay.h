// Requests for models in processes of their own: passed on to their servers, and what those answer
// back to the client as it comes.
//
// Invariant: of a request only its body and what that is are passed on, no key and no origin; of a
// reply no header that is about the connection. A client that hangs up ends the request there.
#pragma once

#include "serve/api.h"
#include "serve/http.h"

#include <optional>
#include <string>

namespace pinhole::serve {

// Nothing: the model that the body names is in this process, or the body is for its handler to
// refuse.
std::optional<HttpReply> relay_external(Api& api, HttpRequest& http);

// What a model in a process of its own says about a picture.
ApiResult<std::string> ask_external(Api& api, const ExternalUse& use, const std::string& prompt,
                                    const PictureBytes& picture, std::atomic<bool>& gone);

} // namespace pinhole::serve

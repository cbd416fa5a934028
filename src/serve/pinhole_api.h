// pinhole's own endpoints: analyze, plan, health, metrics, tokenize.
#pragma once

#include "serve/api.h"
#include "serve/http.h"

namespace pinhole::serve {

// A form with `prompt` and `image` -> {model, response, done}.
HttpReply analyze(Api& api, HttpRequest& http);
// A body of chat/completions -> what it costs, without running it.
HttpReply plan_request(Api& api, HttpRequest& http);
HttpReply health(Api& api, HttpRequest& http);
HttpReply metrics_page(Api& api, HttpRequest& http);
HttpReply tokenize(Api& api, HttpRequest& http);
HttpReply detokenize(Api& api, HttpRequest& http);

} // namespace pinhole::serve

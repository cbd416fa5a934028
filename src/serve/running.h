// GET /running: which models are in memory now, and what they take of the ceiling.
#pragma once

#include "serve/api.h"
#include "serve/http.h"

namespace pinhole::serve {

HttpReply running(Api& api, HttpRequest& http);

} // namespace pinhole::serve

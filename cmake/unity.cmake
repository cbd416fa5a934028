# pinhole_unity(target): with PINHOLE_UNITY the compiler sees several sources of the target at once,
# and reads their headers once. Compiled alone is what PINHOLE_ALONE matches: layers in which files
# give the same name in their anonymous namespaces to different things (families do, by design), and
# single files of others that do. To be called in the directory of the target.
option(PINHOLE_UNITY "Compile several sources at once: whole builds are quicker, one file's slower" OFF)
set(PINHOLE_ALONE "src/(image|kernels|quant|text|model)/|/extend/model/"
  "src/(file/(remote_file|safetensors)|plan/rates|engine/expert_cache|cli/planned_run)\\.cc"
  "src/serve/(api_error|exchange|fields|front|openai_request)\\.cc"
  "tests/(answer|base|engine|file|kernels|model|swap)/")
string(REPLACE ";" "|" PINHOLE_ALONE "${PINHOLE_ALONE}")

function(pinhole_unity target)
  if(PINHOLE_UNITY)
    get_target_property(sources ${target} SOURCES)
    list(FILTER sources INCLUDE REGEX "${PINHOLE_ALONE}")
    set_source_files_properties(${sources} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  endif()
endfunction()

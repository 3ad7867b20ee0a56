"""Studies: arms compared over several seeds under one budget. The YAML files here are those that are shipped."""

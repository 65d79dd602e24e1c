-- The name under which older instructions load the template.
\ir ../templates/foodlogstats.sql

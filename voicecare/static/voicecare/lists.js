// Gives each cell of a list the name of its column, which lists.css shows on a phone, where the list has no header.
'use strict';

document.querySelectorAll('#result_list').forEach(list => {
    const names = [...list.tHead.rows[0].cells].map(cell => cell.querySelector('.text')?.textContent.trim() ?? '');
    for (const row of list.tBodies[0].rows) {
        [...row.cells].forEach((cell, place) => {
            if (place && names[place] && cell.matches('td')) {
                cell.dataset.column = names[place];
            }
        });
    }
});
